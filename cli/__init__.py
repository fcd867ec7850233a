"""The command line: reads arguments, calls one library function, renders. No logic lives here."""
