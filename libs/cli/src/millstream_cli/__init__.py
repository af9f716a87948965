"""The `millstream` command: check a project, run the whole loop on one machine, replay a recording, tell what happened."""
