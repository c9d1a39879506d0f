"""What comes in: requests, stops and reports, and the domain's command that each stands for."""
