"""Long jobs: files that appear whole or not at all. Imports nothing of ours but its own floor."""
