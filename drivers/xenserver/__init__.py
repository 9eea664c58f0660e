"""XenServer and XCP-ng through XenAPI."""
