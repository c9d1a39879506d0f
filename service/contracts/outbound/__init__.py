"""What goes out: lifecycle, state and net status, and the JSON columns they are made of."""
