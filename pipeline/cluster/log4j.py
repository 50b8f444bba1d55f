"""How the Java processes log: one file each, turned over by size, nothing on a terminal."""

LOG_MB, LOG_FILES = 10, 4
_LAYOUT = "%d{yyyy-MM-dd'T'HH:mm:ss.SSSXXX}{UTC} %-5p %c{1} [%t] %m%n%throwable"


def render_log4j2() -> str:
    """The text of a log4j2.xml that writes to the system property `log.file`."""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="WARN">
  <Appenders>
    <RollingFile name="file" fileName="${{sys:log.file}}" filePattern="${{sys:log.file}}.%i">
      <PatternLayout pattern="{_LAYOUT}"/>
      <SizeBasedTriggeringPolicy size="{LOG_MB} MB"/>
      <DefaultRolloverStrategy max="{LOG_FILES}"/>
    </RollingFile>
  </Appenders>
  <Loggers>
    <Root level="INFO">
      <AppenderRef ref="file"/>
    </Root>
  </Loggers>
</Configuration>
"""
