"""Where workers live: in the caller's process, or in processes of this machine."""
