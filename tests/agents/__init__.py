"""The whole daemon with the real Claude CLI against the scripted API."""
