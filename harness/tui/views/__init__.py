"""What the screens say, as lines of styled text: pure functions of run folders, without textual."""
