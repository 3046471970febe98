"""What each command does; `main` names them."""
