"""Labelled key points from one format to another: a file for each format, `conversion` from one to the other.

All formats meet in one form in memory, COCO's document (`rpgmt.data.convert.labels`). Coordinates are taken over as they
stand: no format's documentation shifts them by half a pixel against COCO's, and what their own tools convert does not either.

The readers and writers are our own: datumaro rounds places to hundredths of a pixel and knows neither skeletons of CVAT
nor Label Studio, DeepLabCut and YOLO's poses, and the data sets of supervision drop key points.
"""
