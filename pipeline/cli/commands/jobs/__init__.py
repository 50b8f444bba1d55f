"""Commands about a project and what runs of it: the jobs, a replica, a local cluster."""
