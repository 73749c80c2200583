"""What `python3 dev.py run` is made of: one supervisor and its children. Nothing here runs in production."""
