"""OpenAI's files, uploads and batches."""
