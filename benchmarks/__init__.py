"""Speed, memory and claims; each result is a JSON that names versions and machine."""
