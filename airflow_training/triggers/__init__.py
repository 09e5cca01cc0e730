"""What follows a training while no worker is busy with it."""
