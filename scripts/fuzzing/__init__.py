"""What ``scripts/fuzz.py`` is made of: sound inputs, ways to damage them, commands to give them to, and a judge."""
