"""Who may read, who may make others believe, and what a member is."""
