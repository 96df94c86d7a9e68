"""Surface-SOS: object and background as two fields, what they start from, and the object's mesh."""
