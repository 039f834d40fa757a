"""Write docs/settings.schema.json from the settings that the program reads (`make docs`)."""

import json
from pathlib import Path

from scaler.settings import Settings

schema = json.dumps(Settings.model_json_schema(by_alias=True), indent=2)
(Path(__file__).parent / "settings.schema.json").write_text(schema + "\n")
