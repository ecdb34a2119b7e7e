"""Results -> text: readers of a result file; nothing here measures."""
