"""Finding all that is wrong with annotation files and images, where reading them stops at the first mistake."""
