"""Many requests as one job, answered behind interactive work: for every dialect that has batches."""
