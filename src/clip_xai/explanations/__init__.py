"""What jobs, studies and pages of explanation share: questions, photographs, the store of results, localisation."""
