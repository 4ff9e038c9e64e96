"""Policy files and environment settings, checked and frozen after loading."""
