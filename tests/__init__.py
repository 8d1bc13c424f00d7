"""The tests, the lab and the test command (`python -m tests`)."""
