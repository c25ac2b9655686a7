"""What runs on a device: releases put in place, and taken back."""
