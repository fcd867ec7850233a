"""`kanctl provision`: what a playbook's events mean (state), how they are shown (view) and kept (journal)."""
