"""What the server remembers for its callers: answers, conversations, files, batches."""
