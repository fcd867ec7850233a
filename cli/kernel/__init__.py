"""What the verbs of `kanctl kernel` do: crossing from the library to Ansible, files and the terminal."""
