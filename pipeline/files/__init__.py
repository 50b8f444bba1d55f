"""Files of a project, whole and under names: in a local folder or in an object store."""
