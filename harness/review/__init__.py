"""People judge answers: what they are asked, what they said, and how well they agree."""
