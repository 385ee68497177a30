"""One file for each form of data file; each yields rows as they stand in the file."""
