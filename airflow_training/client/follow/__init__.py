"""Following many jobs with few requests."""
