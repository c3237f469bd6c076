"""What every stage shares and knows nothing of faces: profile, run folder, tables, artefacts, progress, reports."""
