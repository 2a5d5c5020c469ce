"""Reports for people: single HTML files that can be sent around."""
