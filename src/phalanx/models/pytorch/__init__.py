"""torch modules: bound to the flat vector of a job, with torch's own losses and optimisers."""
