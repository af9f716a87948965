"""Questions, columns, answers, and who answers: no I/O, no clock."""
