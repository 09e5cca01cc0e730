"""The types on the wire, declared once for both ends. No input, no output."""
