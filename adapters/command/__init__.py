"""Agents in other processes: started by a command, or by the user."""
