"""One file per command group; cli/app.py loads a file only when its group is used."""
