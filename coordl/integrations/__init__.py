"""Other packages, met where they would lose what coordl.DataLoader does."""
