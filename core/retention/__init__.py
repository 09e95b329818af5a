"""What is kept, and for how long: legal holds, and the removal of images and inspections by the policies of recipes."""
