"""torch modules: from the arguments of `phalanx.fit` to a job, and back into the user's objects."""
