"""Where workers live: in the caller's process, in processes of this machine, on several hosts."""
