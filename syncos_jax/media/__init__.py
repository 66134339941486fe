"""Pictures and clips in; video files, contact sheets and labels out."""
