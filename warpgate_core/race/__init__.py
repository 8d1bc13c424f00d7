"""The race: who starts when (`plan`), and which path both ends agree on (`agreement`). Pure."""
