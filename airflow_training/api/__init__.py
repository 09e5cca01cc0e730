"""What goes over the wire, declared once for both ends. No input, no output."""
