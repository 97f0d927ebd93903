"""The paper's questions, asked of any images."""
