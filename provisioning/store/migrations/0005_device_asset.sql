-- Applications name devices by their asset id.

CREATE INDEX device_asset ON device (asset) WHERE asset <> '';
