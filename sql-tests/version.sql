SELECT litestream_version() GLOB '[0-9]*.[0-9]*.[0-9]*';
