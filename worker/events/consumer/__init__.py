"""Reading events back: consumers of a group, blocking or for asyncio."""
