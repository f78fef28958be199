"""What has to do with the operating system alone: files that are whole or not there."""
